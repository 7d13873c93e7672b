"""The steps by which the tables of the records came to their present form, one
module each, run by Alembic.

A change of `tables.py` needs a step: a module with the next number in its name and as its
`revision`, the number before as its `down_revision`, and `upgrade`, which changes existing tables;
then `REVISION` in `tables.py`. A step that was released is not edited any more. There is no way
back: a program refuses tables that are newer than it knows.
"""
