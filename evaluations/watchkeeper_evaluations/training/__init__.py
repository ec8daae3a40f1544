"""How the judges were trained: run by whoever wants to train them anew, never by what serves or evaluates."""
