"""Commands about models: listing, training and tuning them."""
