"""Rule sets, the facts that they speak of, and facts compared with facts."""
