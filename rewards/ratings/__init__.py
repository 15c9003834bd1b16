"""Ratings and votes: tournaments, Bradley-Terry, agreement between raters."""
