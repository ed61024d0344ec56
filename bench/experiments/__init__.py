"""Measurements that decide what is built: nothing of the product imports them."""
