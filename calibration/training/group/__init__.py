"""The processes of one training, on one computer or on several: who they are, how they meet, what they share."""
