"""An invented app for the linter of migrations."""
