"""What was cut, predicted and measured: the records, how they are filled, their plot."""
