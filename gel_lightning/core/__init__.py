"""What all other packages use; it knows nothing of pictures or networks."""
