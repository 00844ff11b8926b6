"""Text as a kind of data: strings to ids of tokens.

`texts.load` makes a data set of a source's rows, with a vocabulary that is given
(`vocabulary`) or trained on the training part (`training`, `unigram`). What came out is
a `tokens.Tokens`, which travels in artifacts and encodes what is served as it encoded
what was trained on.
"""
