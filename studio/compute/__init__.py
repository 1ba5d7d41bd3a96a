"""What the lanes compute, with torch; the web process imports none of it."""
