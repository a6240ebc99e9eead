"""quant.init: base starts from the file's own codes: a run that learns nothing exports the tensors of its input, byte for
byte."""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import json
import unittest

import gguf
import numpy as np

from temper_cli import TemperTest, model, ok, word_problems


def tensors(path):
    return {t.name: (t.tensor_type, np.array(t.data)) for t in gguf.GGUFReader(path).tensors}


class TrainFromCodes(TemperTest):
    def test_what_is_not_trained_stays_byte_for_byte(self):
        rows = self.folder / "rows.jsonl"
        rows.write_text("".join(json.dumps(r) + "\n" for r in word_problems(8)))
        for scheme in ["q4_1"]:  # what the model at hand holds
            out, exported = self.folder / scheme, self.folder / f"{scheme}.gguf"
            # So low a rate leaves every merged weight as it was.
            ok("train", "--model", model(), "--data", rows, "--scheme", scheme, "--quant-init", "base", "--steps", 2, "--lr",
               1e-30, "--batch-size", 2, "--seq-len", 64, "--out", out)
            ok("export", "--run", out, "--to", f"gguf:{scheme}", "--out", exported)
            before, after = tensors(model()), tensors(exported)
            same_type = [name for name in before if name in after and before[name][0] == after[name][0]]
            self.assertGreater(len(same_type), 200)
            for name in same_type:
                with self.subTest(name):
                    np.testing.assert_array_equal(before[name][1], after[name][1])


if __name__ == "__main__":
    unittest.main(verbosity=2)
