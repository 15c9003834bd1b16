"""Makes the pages that nobody types: references out of the code, evidence out of kept figures."""
