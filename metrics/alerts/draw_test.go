package alerts_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/xml"
	"fmt"
	"image/color"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// The picture is 900 pixels wide, as wide as GitHub shows a README. A pixel is ¾ of a point; Grafana's grid has 24
// columns.
const (
	pixel  = vg.Length(0.75)
	column = 900 * pixel / 24
	line   = 24 * pixel
)

var (
	paper  = color.White
	ink    = color.NRGBA{0x1f, 0x23, 0x28, 0xff}
	faint  = color.NRGBA{0x59, 0x63, 0x6e, 0xff}
	grid   = color.NRGBA{0xe4, 0xe7, 0xeb, 0xff}
	colors = []color.Color{
		color.NRGBA{0x1f, 0x5f, 0xa8, 0xff}, color.NRGBA{0xd1, 0x7a, 0x1a, 0xff}, color.NRGBA{0x2a, 0x8a, 0x4a, 0xff},
		color.NRGBA{0xd1, 0x1a, 0x2f, 0xff}, color.NRGBA{0x7a, 0x4f, 0xb5, 0xff}, color.NRGBA{0x59, 0x63, 0x6e, 0xff},
		color.NRGBA{0x1a, 0x9a, 0xa5, 0xff}, color.NRGBA{0xb5, 0x4f, 0x8a, 0xff},
	}
)

// picture draws what the panels show, where the dashboard has them.
func picture(t *testing.T, d dashboard, shown [][]curve, begin, end time.Time) []byte {
	t.Helper()
	last := d.Panels[len(d.Panels)-1].GridPos
	svg := vgsvg.New(24*column, vg.Length(last.Y+last.H)*line)
	c := draw.New(svg)
	c.SetColor(paper) // GitHub's dark mode would shine through
	c.Fill(c.Rectangle.Path())
	for i, p := range d.Panels {
		pos := p.GridPos
		box := draw.Crop(c, vg.Length(pos.X)*column, -vg.Length(24-pos.X-pos.W)*column,
			c.Size().Y-vg.Length(pos.Y+pos.H)*line, -vg.Length(pos.Y)*line)
		drawPanel(t, draw.Crop(box, 8*pixel, -8*pixel, 6*pixel, -6*pixel), p, shown[i], begin, end)
	}
	var out bytes.Buffer
	_, err := svg.WriteTo(&out)
	require.NoError(t, err)
	require.NoError(t, xml.Unmarshal(out.Bytes(), new(struct{})))
	text := bytes.ReplaceAll(out.Bytes(), []byte("font-family:Liberation Sans;"), []byte("font-family:Liberation Sans,Arial,Helvetica,sans-serif;"))
	return fmt.Appendf(text, "<!-- %s -->\n", drawnFrom(d))
}

// drawnFrom says what of the dashboard is in the picture, in short.
func drawnFrom(d dashboard) string {
	hash := sha256.New()
	for _, p := range d.Panels {
		fmt.Fprintln(hash, p.Type, p.Title, p.GridPos, p.Targets, p.FieldConfig)
	}
	return fmt.Sprintf("drawn from the panels %x", hash.Sum(nil)[:8])
}

func drawPanel(t *testing.T, c draw.Canvas, p panel, curves []curve, begin, end time.Time) {
	t.Helper()
	plt := plot.New()
	plt.BackgroundColor = nil
	plt.Title.Text = p.Title
	plt.Title.TextStyle.Color = ink
	plt.Title.TextStyle.Font.Variant = "Sans"
	plt.Title.TextStyle.Font.Size = font.Length(10)
	plt.X.Min, plt.X.Max, plt.Y.Min = 0, end.Sub(begin).Minutes(), 0
	plt.X.Tick.Marker, plt.Y.Tick.Marker = minutes{}, values{p.FieldConfig.Defaults.Unit}
	for _, axis := range []*plot.Axis{&plt.X, &plt.Y} {
		axis.LineStyle.Color, axis.Tick.LineStyle.Color = grid, grid
		axis.Tick.Label.Color, axis.Tick.Label.Font.Variant, axis.Tick.Label.Font.Size = faint, "Sans", 7
	}
	lines := plotter.NewGrid()
	lines.Vertical.Color, lines.Horizontal.Color = grid, grid
	plt.Add(lines)
	if p.Type == "state-timeline" {
		lanes(t, plt, curves, begin)
		plt.Draw(c)
		return
	}
	for i, s := range curves {
		for _, run := range runs(s, begin) {
			last := run[len(run)-1]
			run = append(run, plotter.XY{X: last.X + 0.25, Y: last.Y}) // until the next scrape, or a single point would not show
			l, err := plotter.NewLine(run)
			require.NoError(t, err)
			l.Color, l.Width = colors[i%len(colors)], 1.2
			l.StepStyle = plotter.PostStep
			plt.Add(l)
		}
	}
	plt.Y.Max = math.Max(plt.Y.Max*1.05, 1e-3)
	plt.Draw(draw.Crop(c, 0, 0, drawLegend(c, curves), 0))
}

// drawLegend names the curves below the panel, as Grafana does, and returns how high that is.
func drawLegend(c draw.Canvas, curves []curve) vg.Length {
	style := draw.TextStyle{Color: faint, Font: font.From(plot.DefaultFont, 6.5), Handler: plot.DefaultTextHandler}
	style.Font.Variant = "Sans"
	const swatch, space, high = 10 * pixel, 12 * pixel, 12 * pixel
	var x, y vg.Length // of an entry, from the left and from the top of the legend
	at := make([]vg.Point, len(curves))
	for i, s := range curves {
		wide := swatch + 4*pixel + style.Width(s.legend)
		if x > 0 && x+wide > c.Size().X {
			x, y = 0, y+high
		}
		at[i] = vg.Point{X: x, Y: y}
		x += wide + space
	}
	height := y + high
	for i, s := range curves {
		left, middle := c.Min.X+at[i].X, c.Min.Y+height-at[i].Y-high/2
		c.StrokeLine2(draw.LineStyle{Color: colors[i%len(colors)], Width: 1.8}, left, middle, left+swatch, middle)
		c.FillText(style, vg.Point{X: left + swatch + 4*pixel, Y: middle - 2.5*pixel}, s.legend)
	}
	return height + 4*pixel
}

// lanes draws a lane for each replica: thick where its value is 1.
func lanes(t *testing.T, plt *plot.Plot, curves []curve, begin time.Time) {
	t.Helper()
	var names []plot.Tick
	for i, s := range curves {
		y := float64(len(curves) - i)
		names = append(names, plot.Tick{Value: y, Label: s.legend})
		for _, run := range runs(s, begin) {
			for from := 0; from < len(run)-1; {
				until := from + 1
				for until < len(run)-1 && run[until].Y == run[from].Y {
					until++
				}
				l, err := plotter.NewLine(plotter.XYs{{X: run[from].X, Y: y}, {X: run[until].X, Y: y}})
				require.NoError(t, err)
				l.Width, l.Color = 1, faint
				if run[from].Y == 1 {
					l.Width, l.Color = 9, colors[0]
				}
				plt.Add(l)
				from = until
			}
		}
	}
	plt.Y.Min, plt.Y.Max = 0.5, float64(len(curves))+0.5
	plt.Y.Tick.Marker = plot.ConstantTicks(names)
}

// runs are the parts of a curve without a gap, in minutes.
func runs(s curve, begin time.Time) (all []plotter.XYs) {
	previous := math.Inf(-1)
	for _, point := range s.points {
		x := float64(point.T-begin.UnixMilli()) / 60e3
		if math.IsNaN(point.F) || math.IsInf(point.F, 0) {
			continue
		}
		if x-previous > 1 {
			all = append(all, nil)
		}
		all[len(all)-1] = append(all[len(all)-1], plotter.XY{X: x, Y: point.F})
		previous = x
	}
	return all
}

// minutes are the ticks of the time axis, every ten.
type minutes struct{}

func (minutes) Ticks(_, until float64) (ticks []plot.Tick) {
	for x := 0.0; x <= until; x += 10 {
		ticks = append(ticks, plot.Tick{Value: x, Label: fmt.Sprintf("%.0f min", x)})
	}
	return ticks
}

// values are the ticks of the other axis, in the panel's unit.
type values struct{ unit string }

func (v values) Ticks(from, until float64) []plot.Tick {
	ticks := plot.DefaultTicks{}.Ticks(from, until)
	for i := range ticks {
		if ticks[i].Label == "" {
			continue
		}
		switch v.unit {
		case "s":
			ticks[i].Label = time.Duration(ticks[i].Value * 1e9).Round(100 * time.Microsecond).String()
		case "percentunit":
			ticks[i].Label = fmt.Sprintf("%.0f %%", 100*ticks[i].Value)
		}
	}
	return ticks
}
