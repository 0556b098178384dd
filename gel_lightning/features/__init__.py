"""What a frozen network makes of pictures."""
