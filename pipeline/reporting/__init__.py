"""Tables, figures and model cards, from JSON and small arrays only.

`contents.py` lists the tables; a module beside it has the tables and figures of one subject.
"""
