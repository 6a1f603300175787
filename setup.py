"""Package metadata and direct dependencies.

This file pins what breaks otherwise: MXNet 1.9.1 needs NumPy below 1.24, and the packages built
on NumPy are held at the last releases seen to work with it. ``requirements.txt`` locks every
package, also the indirect ones, for each supported Python; ``make`` installs with it.
"""

import sys

from setuptools import find_packages, setup

if not (3, 9) <= sys.version_info < (3, 12):  # pip itself would go on to build an old NumPy
    sys.exit(
        "MXNet 1.9.1 needs Python 3.9, 3.10 or 3.11, and this is "
        f"{sys.version_info[0]}.{sys.version_info[1]}: make an environment with one of those"
    )

# MXNet 1.9.1 looks for the CUDA 11 libraries on the loader's path only and bundles none;
# train/cuda.py loads these.
CUDA_11 = [
    "nvidia-cublas-cu11==11.11.3.6",
    "nvidia-cuda-nvrtc-cu11==11.8.89",
    "nvidia-cuda-runtime-cu11==11.8.89",
    "nvidia-cudnn-cu11==8.9.6.50",
    "nvidia-cufft-cu11==10.9.0.58",
    "nvidia-curand-cu11==10.3.0.86",
    "nvidia-cusolver-cu11==11.4.1.48",
    "nvidia-nccl-cu11==2.21.5",
    "nvidia-nvtx-cu11==11.8.86",
]

setup(
    name="resnet-duc-hdc",
    version="0.1.0",
    description="Dense Upsampling and Hybrid Dilated Convolution for segmentation, in MXNet",
    license="Apache-2.0",
    packages=[
        *find_packages(include=["configs*", "symbols*", "data_iter*", "train*", "tools*"]),
        "models",
        "models.camvid",  # data alone: the network that predict.py uses by default
    ],
    package_data={
        "configs": ["*.cfg", "studies/*"],
        "configs.datasets": ["*.yaml"],
        "models": ["README.md"],
        "models.camvid": ["*"],
        "tools.reporting": ["*.j2"],
        "tools.serving": ["*.html"],
        "tools.weights": ["*.yaml"],
    },
    python_requires=">=3.9,<3.12",  # NumPy 1.23 has no build for 3.12, pandas 2.1 none for 3.8
    install_requires=[
        "Jinja2>=3.1",
        "Pillow>=10",
        "PyYAML>=6",
        "gluoncv==0.10.5.post0",
        "isal>=1.7",  # inflates PNGs twice as fast; data_iter/png_rows.py
        "matplotlib==3.8.4",
        "numpy==1.23.5",
        "onnx==1.14.1",
        "opencv-python==4.10.0.84",
        "pandas==2.1.4",  # for gluoncv, which leaves it open
        "protobuf>=4",
        "psutil>=5.9",
        "pycocotools>=2.0.7",
        "pydensecrf2==1.1",  # pydensecrf itself does not build on Python 3.11
        "rich>=13",
        "safetensors>=0.4.2",
        "scipy==1.11.4",
        "tensorboardX>=2.6.2",
    ],
    extras_require={
        "cpu": ["mxnet==1.9.1"],
        "cu112": ["mxnet-cu112==1.9.1", *CUDA_11],
        "hub": ["huggingface_hub>=0.34"],  # convert_weights.py pytorch hub:...
        "onnxruntime": ["onnxruntime>=1.18"],
        "openvino": ["openvino>=2024.6"],
        "serve": ["starlette>=0.37", "uvicorn>=0.29"],
        "dev": [
            "cityscapesscripts==2.3.0",
            "hypothesis>=6.100",
            "mypy>=1.11",
            "pytest>=8",
            "pytest-timeout>=2.3",
            "pytest-xdist>=3.6",  # 'make test' runs two files at a time
            "ruff>=0.12",
            "types-PyYAML>=6",
        ],
    },
)
