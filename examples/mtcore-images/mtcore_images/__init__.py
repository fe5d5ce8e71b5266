"""mtcore plugin `images`: handwritten digits, pictures as arrays, and sound made into pictures."""
