"""`make queueing`: the scheduler compared with first come, first served, in
a simulation of boxes."""
