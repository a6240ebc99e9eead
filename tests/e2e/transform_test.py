"""temper transform and quantize --transform say what was done to the weights."""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import unittest

import tiny_model
from temper_cli import TemperTest, ok

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


if __name__ == "__main__":
    unittest.main(verbosity=2)
