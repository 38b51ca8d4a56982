"""What can be attached to a trunk and trained: one file a method, and the dictionary of them all."""
