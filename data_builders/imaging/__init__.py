"""Pictures opened, turned upright, checked, compared."""
