"""What a run is asked: the record, from flags and files, held against what began, and what it would cost."""
