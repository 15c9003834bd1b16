"""Words read back into facts: findings, sides, boxes, and what is denied."""
