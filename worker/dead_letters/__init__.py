"""Dead letters: finding them, submitting their events again, dropping them. For the command line and the desk."""
