"""The benchmark of prediction, on a network and sizes that take seconds."""

import pytest
from tiny_run import make_run

from configs.errors import ConfigError
from tools.bench import predict as bench_predict

pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")


BACKENDS = ("mxnet", "openvino")  # those with cases in bf16


@pytest.mark.slow
def test_rows_name_what_was_measured(tmp_path, capsys):
    run = make_run(tmp_path / "run")
    config = run.path / "config.cfg"
    rows = list(bench_predict.rows(runs=2, sizes=[(64, 96)], config=config))
    assert all(row.keys() == {"name", "value", "unit", "ratio_to", "ratio", "runs"} for row in rows)
    by_name = {row["name"]: row for row in rows}
    progress = capsys.readouterr().err
    assert "64x96: loading openvino_int8" in progress
    left_out = progress.count("left out: ")  # the bf16 cases, on processors without bf16
    assert left_out == sum(f"predict_{kind}_bf16_64x96" not in by_name for kind in BACKENDS)
    assert len(by_name) == len(rows) == 17 - 2 * left_out
    int8 = by_name["predict_mxnet_int8_64x96"]
    assert int8["unit"] == "s/image" and int8["runs"] == 2 and int8["value"] > 0
    assert int8["ratio_to"] == "predict_mxnet_fp32_64x96" and int8["ratio"] > 0
    other = by_name["predict_openvino_int8_64x96"]
    assert other["ratio_to"] == "predict_openvino_fp32_64x96" and other["ratio"] > 0
    assert by_name["predict_mxnet_fp32_files_to_labels_64x96"]["ratio"] > 1
    assert 50 < by_name["predict_peak_memory_onnxruntime_fp32_64x96"]["value"] < 4000
    for row in rows:
        assert (row["ratio"] is None) == (row["ratio_to"] is None)
        assert row["ratio_to"] is None or row["ratio_to"] in by_name


@pytest.mark.slow
def test_some_cases_alone(tmp_path):
    """MXNet in fp32 is always measured; a row has a ratio only if its reference was measured."""
    config = make_run(tmp_path / "run").path / "config.cfg"
    options = {"sizes": [(64, 64), (32, 64)], "config": config}
    rows = list(bench_predict.rows(runs=1, cases=["openvino_int8"], **options))
    times = {r["name"]: r["ratio_to"] for r in rows if r["unit"] == "s/image"}
    assert times == {
        f"predict_{name}_{size}": to and f"predict_{to}_{size}"
        for size in ("64", "32x64")
        for name, to in (
            ("mxnet_fp32", None),
            ("openvino_int8", None),
            ("mxnet_fp32_files_to_labels", "mxnet_fp32"),
        )
    }
    with pytest.raises(ConfigError, match=r"--cases openvino: expected some of mxnet_fp32, "):
        list(bench_predict.rows(runs=1, cases=["openvino"], **options))
