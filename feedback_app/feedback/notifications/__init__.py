"""Notifications of owners and admins: in the app, by e-mail digest and by webhook."""
