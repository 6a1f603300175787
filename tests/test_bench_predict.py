"""The benchmark of prediction, on a network and sizes that take seconds."""

import pytest
from tiny_run import make_run

from tools.bench import predict as bench_predict

pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")


BACKENDS = ("mxnet", "openvino")  # that have cases in bf16


@pytest.mark.slow
def test_rows_name_what_was_measured(tmp_path, capsys):
    run = make_run(tmp_path / "run")
    rows = bench_predict.rows(runs=2, sizes=[(64, 64), (64, 96)], config=run.path / "config.cfg")
    assert all(row.keys() == {"name", "value", "unit", "ratio_to", "ratio", "runs"} for row in rows)
    by_name = {row["name"]: row for row in rows}
    left_out = capsys.readouterr().err.count("left out: ")  # bf16, on processors without it
    assert left_out == sum(f"predict_{kind}_bf16_64" not in by_name for kind in BACKENDS)
    assert len(by_name) == len(rows) == 2 * (13 - 2 * left_out)
    int8 = by_name["predict_mxnet_int8_64x96"]
    assert int8["unit"] == "s/image" and int8["runs"] == 2 and int8["value"] > 0
    assert int8["ratio_to"] == "predict_mxnet_fp32_64x96" and int8["ratio"] > 0
    assert by_name["predict_mxnet_fp32_files_to_labels_64"]["ratio"] > 1
    assert 50 < by_name["predict_peak_memory_onnxruntime_fp32_64"]["value"] < 4000
    for row in rows:
        assert (row["ratio"] is None) == (row["ratio_to"] is None)
        assert row["ratio_to"] is None or row["ratio_to"] in by_name
