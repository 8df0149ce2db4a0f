"""What is kept on disk: the records of payments, and the videos."""
