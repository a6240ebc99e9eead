// Renders Go templates as Ollama does (text/template; .Messages with .Role and .Content, .System): JSON cases on stdin, a list
// of texts on stdout. Run by check_go_templates.py.
package main

import (
	"bytes"
	"encoding/json"
	"os"
	"text/template"
)

type message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

type test struct {
	Template string     `json:"template"`
	System   string     `json:"system"`
	Messages []*message `json:"messages"`
}

func main() {
	var tests []test
	if err := json.NewDecoder(os.Stdin).Decode(&tests); err != nil {
		panic(err)
	}
	texts := []string{}
	for _, t := range tests {
		parsed := template.Must(template.New("").Option("missingkey=zero").Parse(t.Template))
		var out bytes.Buffer
		if err := parsed.Execute(&out, map[string]any{"Messages": t.Messages, "System": t.System}); err != nil {
			panic(err)
		}
		texts = append(texts, out.String())
	}
	if err := json.NewEncoder(os.Stdout).Encode(texts); err != nil {
		panic(err)
	}
}
