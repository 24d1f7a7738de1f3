"""An engine's profile fitted to what was measured on it.

- `loads`: what a serving benchmark would have measured, by the serving simulator
- `terms`: the constants that can be fitted, and which of them the measurements tell apart
- `solving`: figures as straight lines in the terms, and the terms from which they differ least
- `fit`: the profile from which the measurements differ least, and how far each is off that was left out
"""
