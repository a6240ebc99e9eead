"""temper transform and quantize --transform say what was done to the weights."""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import unittest

import tiny_model
from temper_cli import TemperTest, ok, run

NAMES = {"rotate": "rotated", "awq": "scaled by AWQ", "smoothquant": "scaled by SmoothQuant",
         "rotate+awq": "rotated and scaled by AWQ", "rotate+smoothquant": "rotated and scaled by SmoothQuant"}


class Transform(TemperTest):
    def test_reports_name_the_transform(self):
        model = tiny_model.write_random(self.folder / "model", layers=1, spread=1.0)
        text = self.folder / "text.txt"
        text.write_text("abc def ghi jkl m. " * 100)
        calibration = ["--calibration", text, "--calibration-context", 128]
        for transform, name in NAMES.items():
            data = [] if transform == "rotate" else calibration
            scheme = ["--scheme", "int4-sym-g32"] if "awq" in transform else []
            done = ok("transform", "--model", model, "--transform", transform, *scheme, *data, "--out", self.folder / transform)
            self.assertIn(f"verified: {name}; ", done)
        for transform in ("awq", "smoothquant"):
            done = ok("quantize", "--model", model, "--scheme", "int4-sym-g32", "--transform", transform, "--method", "gptq",
                      *calibration, "--out", self.folder / f"quantized-{transform}")
            self.assertIn(f"{NAMES[transform]}, GPTQ", done)

    def test_rounding_to_nearest_takes_calibration_data_for_static_ranges_alone(self):
        model = tiny_model.write_random(self.folder / "nearest", layers=1, spread=1.0)
        text = self.folder / "nearest.txt"
        text.write_text("abc def ghi jkl m. " * 100)
        given = ["quantize", "--model", model, "--calibration", text, "--calibration-context", 128, "--method", "rtn",
                 "--to", "compressed-tensors"]
        done = ok(*given, "--scheme", "int8-ctsym/int8-static-sym", "--out", self.folder / "static")
        self.assertIn("rounded to nearest", done)
        done = run(*given, "--scheme", "int8-ctsym/int8-ctsym", "--out", self.folder / "dynamic")
        self.assertEqual(done.returncode, 2)
        self.assertIn("nearest.txt): nothing would use it", done.stderr)
        self.assertFalse((self.folder / "dynamic").exists())


if __name__ == "__main__":
    unittest.main(verbosity=2)
