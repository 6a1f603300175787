"""What rooms and commands share: pairs of files, pictures, parallel work, probabilities."""
