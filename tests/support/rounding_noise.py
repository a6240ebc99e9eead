"""How far apart two programs' losses of SmolLM2 may be that multiply the same weights."""

ROWS = 40  # of word problems, 746 scored tokens; on 4 rows the same programs differ by up to 0.1 where activations are rounded
# One multiplies in bf16, the other in f32: products of 30 layers, each rounded to 8 bits.
BF16_NLL = 0.02
# With activations in 8 bits a value at a midpoint goes one way here and another way there, in the tokens that all rows begin
# with, too, so that more rows do not average it out. torchao's own forward in int8-int4 gives these rows 1.378, the same rounding of the same
# weights computed in f32 1.397, and inputs moved by half a step of bf16 1.389 to 1.418: a standard deviation of 0.014. Two such means differ by
# less than four of theirs; that inputs are rounded in the same way is tested apart, on a block where little adds up (torchao_test.py).
ACTIVATIONS_NLL = 4 * 0.014 * 2**0.5
