"""What a user asks for, done once, for Python and the command line alike."""
