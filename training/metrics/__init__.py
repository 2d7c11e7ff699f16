"""What a model is scored by: numpy, float64, one value for each image, so that a caller can average and draw intervals.

Points come in metres; a name that ends in `_mm` returns millimetres, as papers print them. Nothing aligns by itself: the name
or a keyword without a default says what was aligned to what. A NaN is an error, never a score.
"""
