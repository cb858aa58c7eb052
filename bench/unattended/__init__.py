"""From the last vote to the live version, with nobody there: `make bench-unattended`."""
