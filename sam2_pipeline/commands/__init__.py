"""What each verb of the command line does: from parsed options to a call, and from its result to text and exit status."""
