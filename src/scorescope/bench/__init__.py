"""`scorescope bench`: the exact empirical score beside what else one could use, by time and by error, on the user's own bank.

A workload says which states are asked about, a method answers; every method answers the same states, all methods within a repeat one
after another, and a float64 reference judges them. Nothing here is run by the tests for its speed.
"""
