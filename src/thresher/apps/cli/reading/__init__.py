"""What commands are given: flags, names, files, and what is said when they do not fit."""
