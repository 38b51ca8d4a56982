"""Faults that really happen to runs, and what they cost: `make faults`.

Each fault is tried on the commands themselves, in processes of their own, and what is left is compared, file by file,
with a twin that nothing happened to. A row of the table:

    tried      times the fault was made to happen
    lost       results that the twin has and the run has not, after it was started again
    damaged    results that differ from the twin's, or good files that were spoiled
"""
