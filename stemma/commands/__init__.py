"""What each word of the command line does, one file each; loaded when the word is used."""
