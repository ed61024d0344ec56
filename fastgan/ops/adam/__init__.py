"""Adam over one flat buffer. Read reference.py first; functional.py is what is called, optimizer.py
the optimiser."""
