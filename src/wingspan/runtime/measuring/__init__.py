"""What a rank did and when; the machine's own figures."""
