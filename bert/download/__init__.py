"""Data sets from the web: a catalogue, and transfers that resume and are verified."""
