"""Trace the channels of a network through its exported program.

`program` captures the program; `walk` goes through it, operator by operator, with the `rules` that say what each does
to the labels of channels (`labels`, `records`); `sizes` finds out what the network's own code does with sizes;
`groups` unites labels that are removed together, and `reasons` says why others stay.
"""
