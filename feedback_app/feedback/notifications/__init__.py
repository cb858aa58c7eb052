"""What owners and admins are told: in the app, by e-mail digest and by webhook."""
