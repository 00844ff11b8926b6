"""Tables as a kind of data: columns to rows of numbers.

`tables.load` makes a data set of a source's columns. What is fitted to the training
part (`fit`, `selection`) becomes a `inputs.TableInputs` of plain constants, which
travels in artifacts and encodes what is served as it encoded what was trained on.
"""
