"""Identity switches of the tracker on rendered clips with exact truth, with and without keeping hidden tracks."""
