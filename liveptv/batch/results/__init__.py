"""What a batch leaves: results that appear whole, markers of what is done, locks of what is being done."""
