"""`manage.py doctor`: finds problems of an installation and says what to do about each."""
