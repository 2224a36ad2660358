"""Pure rules: frozen dataclasses and functions. No I/O, no clock, no SQL; the standard library only."""
