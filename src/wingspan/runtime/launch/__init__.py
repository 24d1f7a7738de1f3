"""How ranks start, meet, watch each other and end; whatever they then do is given to them as a function."""
