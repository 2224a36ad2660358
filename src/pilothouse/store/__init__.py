"""The only package that knows SQL: databases, named statements, migrations, and one module per noun over them."""
